"""What others do at a server of ours, as its dashboard streams it: joined, left, and joined again."""
