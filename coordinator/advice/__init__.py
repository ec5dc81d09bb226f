"""What batch size and how many workers a job should have, and how sure that is. Pure, but for `measuring`."""
