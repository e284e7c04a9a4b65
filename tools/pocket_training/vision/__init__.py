"""How the pocket vision-language model was trained."""
