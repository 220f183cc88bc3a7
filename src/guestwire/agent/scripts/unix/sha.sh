# sha: prints the SHA-256 of standard input, in hexadecimal digits first. 127 where the guest has no tool for it.
sha() {
  for tool in sha256sum 'sha256 -q' 'shasum -a 256' 'openssl dgst -sha256 -r'; do
    # shellcheck disable=SC2086 # the name of a tool and its options are several words
    command -v "${tool%% *}" >/dev/null 2>&1 && { $tool; return; }
  done
  return 127
}
