"""How commands print what they have to say."""
