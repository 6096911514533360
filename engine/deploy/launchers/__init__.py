"""Programs that run in somebody else's interpreter; they import nothing of this project."""
