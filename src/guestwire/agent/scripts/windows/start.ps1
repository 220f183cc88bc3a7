# Runs a program. Arguments: the program, its arguments as one text, its folder; files for standard input, output and
# error; names and values of variables.
$i = New-Object Diagnostics.ProcessStartInfo
$i.FileName, $i.Arguments, $i.WorkingDirectory = $a[0..2]
$i.UseShellExecute = $false
$places = $a[3..5]
$i.RedirectStandardInput, $i.RedirectStandardOutput, $i.RedirectStandardError = $places | % { $_ -ne '' }
for ($n = 6; $n -lt $a.Length; $n += 2) { $i.EnvironmentVariables[$a[$n]] = $a[$n + 1] }
$in, $out, $err = $places[0], $places[1], $places[2]
$files = @()
if ($in) { $files += ($from = [IO.File]::OpenRead($in)) }
if ($out) { $files += ($to = [IO.File]::Create($out)) }
if ($err) { $files += ($errTo = [IO.File]::Create($err)) }
$p = [Diagnostics.Process]::Start($i)
$copying = @()
if ($out) { $copying += $p.StandardOutput.BaseStream.CopyToAsync($to) }
if ($err) { $copying += $p.StandardError.BaseStream.CopyToAsync($errTo) }
if ($in) {
  # A program may end before it has read all.
  try { $from.CopyTo($p.StandardInput.BaseStream); $p.StandardInput.BaseStream.Close() } catch [IO.IOException] { }
}
$p.WaitForExit()
$copying | % { $_.Wait() }
$files | % { $_.Close() }
$code = $p.ExitCode
