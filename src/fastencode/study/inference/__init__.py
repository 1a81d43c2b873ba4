"""How sure a number is: blocks, bootstrap, permutation, intervals, families of tests."""
