# Runs a compiler of CUDA and keeps what ptxas says of registers and spills beside the object, in OBJECT.ptxas; all else
# that it says is passed on. usage: keep_ptxas.sh nvcc … -o OBJECT …
log=
for ((i = 1; i < $#; ++i)); do
  if [ "${!i}" = -o ]; then
    next=$((i + 1))
    log=${!next}.ptxas
  fi
done
status=0
said=$("$@" 2>&1) || status=$?
if [ -n "$log" ]; then printf '%s\n' "$said" >"$log"; fi
printf '%s\n' "$said" | grep -vE '^(ptxas info|    |$)' >&2 || true
exit $status
