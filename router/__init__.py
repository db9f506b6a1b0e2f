"""The service: takes a song in, sends it to the best tier that is up, hands a master back, forgets the rest."""
