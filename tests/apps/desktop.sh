# A desktop of one's own: an X server that listens on no port, a window manager, a terminal, and noVNC before it.
#   bash desktop.sh ADDRESS PORT
set -euo pipefail
umask 077
folder=$HOME/desktop
mkdir "$folder"
export XAUTHORITY=$folder/authority

# The server finds a display that is free. Which one is known only afterwards, and it looks at no more than the cookie.
cookie=$(openssl rand -hex 16)
xauth -q -f "$XAUTHORITY" add :0 . "$cookie"
mkfifo "$folder/display"
Xvnc -displayfd 3 -geometry 1024x640 -depth 24 -rfbport -1 -rfbunixpath "$folder/vnc" -SecurityTypes None \
  -nolisten tcp -auth "$XAUTHORITY" -desktop tests 3>"$folder/display" &
read -r display <"$folder/display"
export DISPLAY=:$display
xauth -q -f "$XAUTHORITY" add "$DISPLAY" . "$cookie"

openbox &
xterm -geometry 100x24+40+60 -e bash --norc -i &
exec websockify --web /usr/share/novnc --unix-target "$folder/vnc" "$1:$2"
