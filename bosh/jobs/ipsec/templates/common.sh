# Sourced by the scripts of this job: places, and the note that says what comes after a stop. Hooks get hardly any environment.
# shellcheck shell=sh disable=SC2034 # who sources this uses the places
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022
cd /

job=/var/vcap/jobs/ipsec
package=/var/vcap/packages/ipsec-agent
logs=/var/vcap/sys/log/ipsec
state_dir=/var/lib/ipsec-agent
run_dir=/run/ipsec-agent
config=/etc/ipsec-agent/ipsec.yml
units=/etc/systemd/system

note=$run_dir/after-stop
note_age=600

say() {
  printf '%s ipsec: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >&2 || true
}

boot() {
  cat /proc/sys/kernel/random/boot_id
}

# leave_note changed|shutdown: only pre-stop and drain know what comes; monit's stop and post-stop read it here.
leave_note() {
  mkdir -p "$run_dir"
  printf '%s %s %s\n' "$1" "$(boot)" "$(date +%s)" >"$note.new"
  mv -f "$note.new" "$note"
}

forget_note() {
  rm -f "$note"
}

# what_comes: what the note says; nothing where there is none of this boot and of the last 10 minutes. pre-stop, pre-start,
# monit's start and post-stop take it away.
what_comes() {
  word='' of='' at=''
  [ ! -r "$note" ] || read -r word of at <"$note" || true
  case $word:$at in
    *:*[!0-9]* | *:) return 0 ;;
    changed:* | shutdown:*) ;;
    *) return 0 ;;
  esac
  age=$(($(date +%s) - at))
  if [ "$of" = "$(boot)" ] && [ "$age" -ge 0 ] && [ "$age" -le "$note_age" ]; then
    printf '%s\n' "$word"
  fi
}

# runs UNIT: whether it has not ended yet.
runs() {
  case $(systemctl show --property=ActiveState --value "$1" 2>/dev/null) in
    active | activating | deactivating | reloading) return 0 ;;
    *) return 1 ;;
  esac
}

# make_logs: systemd and charon append to files here as root. BOSH makes the directory 0770 root:vcap, and whoever may write it could
# put a link to any file, or a FIFO, in a log's place.
make_logs() {
  install -d -m 0750 "$logs"
  find "$logs" -mindepth 1 -maxdepth 1 \( ! -type f -o ! -user "$(id -u)" \) -exec rm -rf {} +
}
