"""How far a file is from its model, and where the error enters."""
