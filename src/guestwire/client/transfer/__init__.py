"""Files in a guest, of any size.

Reading (`reading.py`), copying from a guest (`download.py`) and to it (`upload.py`), each of which goes on where an
earlier copy stopped; and what they stand on: calls that are repeated (`retrying.py`), and files on this side
(`local_files.py`). `files.py` puts them together.
"""
