"""`./dev demo`: a real guest, served, and every route driven over HTTPS; each effect is checked inside the guest."""
