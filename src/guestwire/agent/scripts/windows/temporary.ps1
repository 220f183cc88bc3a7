# Prints the folder for temporary files of the user of the agent.
Say ([IO.Path]::GetTempPath())
