"""Measures `guestwire serve` over HTTPS against the guest agent's own socket: `./dev bench`."""
