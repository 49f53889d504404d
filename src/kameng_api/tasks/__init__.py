"""Work that must not be lost: what is due, who has claimed it, until when."""
