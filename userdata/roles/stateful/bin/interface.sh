#!/bin/bash
# Gives the fixed interface its address, and sees to it that what arrives through it is answered through it:
# EC2 drops packets that leave by an interface with another one's address.
#   usage: interface.sh MAC ADDRESS PREFIX GATEWAY
set -Eeuo pipefail

mac=$1 address=$2 prefix=$3 gateway=$4
table=100
# One bit of the packet mark; podman's netavark uses 0x2000.
mark=0x10000

link=""
for ((attempt = 0; attempt < 120; attempt++)); do
  link=$(ip -oneline link show | awk -v mac="$mac" 'tolower($0) ~ "link/ether " mac { sub(/[:@].*/, "", $2); print $2 }')
  [[ -z "$link" ]] || break
  sleep 0.5
done
if [[ -z "$link" ]]; then
  echo "no network interface with hardware address $mac" >&2
  exit 1
fi

ip link set "$link" up
ip address replace "$address/$prefix" dev "$link" noprefixroute
# Both interfaces stand in one subnet: each answers for its own address only.
sysctl --quiet --write net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 \
  "net.ipv4.conf.$link.rp_filter=2"
network=$(python3 -c 'import ipaddress, sys; print(ipaddress.ip_interface(sys.argv[1]).network)' "$address/$prefix")
ip route replace "$network" dev "$link" src "$address" table "$table"
ip route replace default via "$gateway" dev "$link" table "$table"
while ip rule delete table "$table" 2>/dev/null; do :; done
ip rule add from "$address" table "$table" priority 100
ip rule add fwmark "$mark/$mark" table "$table" priority 101

# A container's answer is routed before its address is translated back: the connection remembers the way.
nft --file - <<NFT
table inet openqa_interface
delete table inet openqa_interface
table inet openqa_interface {
  chain prerouting {
    type filter hook prerouting priority mangle
    iifname "$link" ct state new ct mark set ct mark | $mark
    iifname != "$link" ct direction reply ct mark & $mark == $mark meta mark set meta mark | $mark
  }
}
NFT
