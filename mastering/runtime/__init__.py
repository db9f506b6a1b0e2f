"""What a process of ours is: its sandbox, its log, its threads."""
