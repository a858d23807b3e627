"""What a sensitivity scan evaluates cells with: parts of the network, measures, and what they cost."""
