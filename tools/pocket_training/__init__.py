"""How the pocket models were trained."""
