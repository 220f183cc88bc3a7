# Walk FOLDER ABOVE DEEP: for each entry its kind, size, permissions, time and path, and a NUL.
# include: seconds.ps1
function Walk($folder, $above, $deep) {
  foreach ($i in $folder.GetFileSystemInfos()) {
    $is = $i.Attributes
    $k = if ($is -band [IO.FileAttributes]::ReparsePoint) { 'l' } elseif ($is -band [IO.FileAttributes]::Directory) { 'd' } else { 'f' }
    $s = if ($k -eq 'f') { $i.Length } else { 0 }
    $m = if ($k -eq 'd') { '755' } elseif ($is -band [IO.FileAttributes]::ReadOnly) { '444' } else { '644' }
    Say ("$k $s $m " + (Seconds $i.LastWriteTimeUtc) + " $above" + $i.Name + "`0")
    if ($deep -and $k -eq 'd') { Walk $i ($above + $i.Name + '/') $deep }
  }
}
