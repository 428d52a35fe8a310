"""The operators' API: describes and controls this process and, through it, all replicas."""
