# Ends with 0 where the process $a[0] is there, and with 1 where it is not.
if (-not (Get-Process -Id $a[0] -ErrorAction SilentlyContinue)) { $code = 1 }
