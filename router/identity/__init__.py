"""Who may come in: an OpenID provider vouches for people, sessions remember them, pseudonyms are all that is kept."""
