"""Pure decisions: what becomes of an event, from the state that it needs. No clock, no chance, no I/O."""
