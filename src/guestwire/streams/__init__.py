"""Programs in guests, with their bytes both ways while they run."""
