"""What a study leaves behind: the page, and the tables and figures beside it."""
