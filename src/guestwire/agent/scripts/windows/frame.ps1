# Around every script: its arguments are in $a, before it; an error ends it with exit code $failing. It sends text
# with Say, which arrives as UTF-8, whatever code page the guest has.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$code = 0
function Send($stream, $text) { $b = [Text.Encoding]::UTF8.GetBytes($text); $stream.Write($b, 0, $b.Length); $stream.Flush() }
function Say($text) { Send ([Console]::OpenStandardOutput()) ([string]$text) }
try {
# SCRIPT
} catch {
  Send ([Console]::OpenStandardError()) ($_.Exception.GetBaseException().Message + "`n")
  $code = $failing
}
exit $code
