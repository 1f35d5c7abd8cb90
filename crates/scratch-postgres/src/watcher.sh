# $1: the folder of one scratch server. The owner holds the other end of stdin, and writes a line with the number of each
# process it starts on that folder: first initdb, later the server.
trap '' HUP INT QUIT
told=
while read -r line; do told=$line; done

# Whether $pid still is a process of this folder: not a zombie, nor a later process with the same number.
running() {
    [ -n "$pid" ] || return 1
    if [ -d /proc/self ]; then
        command=$(tr '\0' ' ' <"/proc/$pid/cmdline")
    else
        command=$(ps -ww -o command= -p "$pid")
    fi
    case "$command" in *" -D $1/data "*) return 0 ;; esac
    return 1
}

nap() { sleep 0.02 || sleep 1; }

# A fast shutdown, then an immediate one. initdb takes the first signal too: it lets its current step finish, whereas
# removing the files under its feet would leave shared memory behind.
stop() {
    for signal in INT QUIT KILL; do
        running "$1" || return
        kill -s "$signal" "$pid"
        tick=0
        while running "$1" && [ "$tick" -lt 400 ]; do
            nap
            tick=$((tick + 1))
        done
    done
}

# More than once: a server that was just starting can add files while we remove them.
tries=0
while [ -d "$1" ] && [ "$tries" -lt 400 ]; do
    pid=$told
    stop "$1"
    # The owner may have died between starting the server and telling us.
    [ -r "$1/data/postmaster.pid" ] && read -r pid <"$1/data/postmaster.pid" && stop "$1"
    rm -rf "$1" || nap
    tries=$((tries + 1))
done
