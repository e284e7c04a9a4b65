"""Statistics on paired samples."""
