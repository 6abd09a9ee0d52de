"""How fast is the book's program, and why: measured against what others would use."""
