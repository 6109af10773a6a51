"""What must hold when processes are killed, networks break and strangers write."""
