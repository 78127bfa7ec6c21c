#!/bin/sh
# Read a stream with curl, a line of JSON a chunk:
#   sh read.sh 'http://localhost:8080/api/steps?steps=5'
# Exits with 0 when all came, 1 when the server told an error, 2 when the stream was cut.
url=${1:-http://localhost:8080/api/steps}

# -N: don't hold lines back. The echo ends the last line where the answer does not.
{ curl -sSN -H 'Accept: application/x-ndjson' "$url"; echo; } | {
  end=2
  while IFS= read -r line; do
    case $line in
      '') ;;
      '{"done":'*) end=0 ;;
      '{"error":'* | '{"type":"about:blank"'*)
        echo "failed: $line" >&2
        end=1
        ;;
      *) echo "$line" ;;
    esac
  done
  [ $end -ne 2 ] || echo 'lost: the stream ended before its end' >&2
  exit $end
}
