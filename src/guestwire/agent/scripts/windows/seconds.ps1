# Seconds WHEN: since the epoch.
function Seconds($when) { [long][Math]::Floor(($when - [DateTime]'1970-01-01').TotalSeconds) }
