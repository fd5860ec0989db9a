"""The scripts that made what labkit ships; nothing else imports them."""
