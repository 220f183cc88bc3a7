# Sha PATH MOST: the SHA-256 of the first MOST bytes of a file, in hexadecimal digits.
function Sha($path, [long]$most) {
  $h, $b = [Security.Cryptography.SHA256]::Create(), (New-Object byte[] 1048576)
  $from = [IO.File]::OpenRead($path)
  try {
    while ($most -gt 0 -and ($n = $from.Read($b, 0, [int][Math]::Min([long]$b.Length, $most))) -gt 0) {
      [void]$h.TransformBlock($b, 0, $n, $b, 0)
      $most -= $n
    }
  } finally { $from.Close() }
  [void]$h.TransformFinalBlock($b, 0, 0)
  -join ($h.Hash | % { $_.ToString('x2') })
}
