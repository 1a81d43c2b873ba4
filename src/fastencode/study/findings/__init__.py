"""What a study found: everything measured in one shape, contrasts of it, means, and answers to what was expected."""
