# SPDX-License-Identifier: GPL-2.0-or-later
"""Network devices of a machine as packages of Open Firmware, and the firmware's own client of DHCP and TFTP.

packets.py       Ethernet, ARP, IPv4 and UDP: what is sent, and what is made of frames that arrive
host.py          an address on a wire: neighbours, the way to other networks
exchange.py      a conversation with servers, as a generator: it waits for a datagram until a time
dhcp_message.py  what DHCP's messages look like
dhcp.py          an address and the name of a file
tftp.py          the file
port.py          frames to the device's own process and from it
devices.py       which devices there are, and their aliases
instance.py      an opened device, for a client that has a network of its own, such as GRUB

The protocols know neither sockets nor clocks nor the machine, so that tests have all of them in their hand.
"""
