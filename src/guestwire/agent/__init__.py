"""The guest agent, typed: commands as data (`commands.py`), their results, files, and processes.

Import from the modules: results alone load no channel.
"""
