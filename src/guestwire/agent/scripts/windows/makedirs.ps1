# Makes folders, and those above them.
$a | % { [void][IO.Directory]::CreateDirectory($_) }
