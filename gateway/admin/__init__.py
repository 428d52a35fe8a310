"""What operators see and do: of this process, and through it of all that share its store."""
