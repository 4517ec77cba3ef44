With --log-json each line of the log is a JSON object that knows the line of the script and the Call-ID; lines of libraries that come in floods are counted.
