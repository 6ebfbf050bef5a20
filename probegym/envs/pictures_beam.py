"""The operator's screen of a beam that moves atoms: the image, the lattice with goals and beam, the rates, and what it has cost."""
