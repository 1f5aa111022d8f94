# Changes the units to Fedora's paths and to the variables of its /etc/sysconfig/qemu-ga.
s|/usr/sbin/qemu-ga|/usr/bin/qemu-ga|
s|/etc/default/qemu-guest-agent|/etc/sysconfig/qemu-ga|
s|^Environment=DAEMON_ARGS=|Environment=BLOCK_RPCS= FILTER_RPC_ARGS= FSFREEZE_HOOK_PATHNAME=/etc/qemu-ga/fsfreeze-hook DAEMON_ARGS=|
s|^\(ExecStart=[^ ]*\) |\1 --block-rpcs=${BLOCK_RPCS} $FILTER_RPC_ARGS -F${FSFREEZE_HOOK_PATHNAME} |
