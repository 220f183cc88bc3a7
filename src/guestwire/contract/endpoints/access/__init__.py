"""Who may do what: tickets, users, tokens, groups, roles, ACLs; everything under `/access`, a file for each."""
