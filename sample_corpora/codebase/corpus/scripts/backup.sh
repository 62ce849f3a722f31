#!/usr/bin/env bash
# Nightly backup of the queue database and the blob directory. Run by the timer quern-backup.
# Finished jobs are left out: nobody needs them after a disaster, and they are nine tenths of the bytes.
set -euo pipefail

target=${QUERN_BACKUP_DIR:-/var/backups/quern}
keep_days=14
stamp=$(date -u +%Y%m%dT%H%MZ)

mkdir -p "$target"
pg_dump --format=custom --exclude-table-data=job --file "$target/quern-$stamp.dump" quern
psql -qc "\copy (SELECT * FROM job WHERE state NOT IN ('done','cancelled')) TO STDOUT WITH (FORMAT csv)" quern \
  | zstd -q > "$target/jobs-$stamp.csv.zst"

# Blobs are content-addressed and never change, so hard links to the last copy are enough.
last=$(find "$target" -maxdepth 1 -type d -name 'blobs-*' | sort | tail -n 1)
rsync -a ${last:+--link-dest="$last"} /var/lib/quern/blobs/ "$target/blobs-$stamp/"

find "$target" -maxdepth 1 \( -name '*.dump' -o -name '*.zst' \) -mtime +"$keep_days" -delete
find "$target" -maxdepth 1 -type d -name 'blobs-*' -mtime +"$keep_days" -exec rm -rf {} +
