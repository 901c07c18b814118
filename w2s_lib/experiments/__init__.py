"""What a chapter calls: arms, sweeps, and the engines that train them."""
