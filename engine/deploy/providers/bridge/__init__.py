"""What the official providers made from Terraform's have in common: property tables and what follows. No cloud."""
