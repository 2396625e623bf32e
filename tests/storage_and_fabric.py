"""Files of a machine with NFS, XFS, Btrfs, ZFS, IPVS, InfiniBand and Fibre Channel, written by hand."""

from __future__ import annotations

NFS = """\
net 70 30 40 5
rpc 1200 37 1201
proc2 18 0 57 74 52 71 73 45 86 0 52 83 61 17 53 50 23 70 82
proc3 22 0 619 489 407 117 5 293 257 299 59 1 2 78 15 11 3 39 92 13 2 1 23
proc4 60 48 98 51 54 83 85 23 24 1 28 73 68 83 12 84 39 68 59 58 88 29 74 69 96 21 84 15 53 86 54 66 56 \
97 36 49 32 85 81 11 58 32 67 13 28 35 1 90 26 12 3 4 5 6 7 8 9 10 11 14 16
"""
NFSD = """\
rc 1 2 3
fh 4 0 0 0 0
io 157286400 72864
th 8 0 0.000 0.000 0.000 0.000 0.000 0.000 0.000 0.000 0.000 0.000
ra 32 0 0 0 0 0 0 0 0 0 0 9
net 972 55 917 1
rpc 18628 3 1 2 5
proc2 18 2 69 0 0 4410 0 0 0 0 0 0 0 0 0 0 0 99 2
proc3 22 2 112 0 2719 111 0 0 0 0 0 0 0 0 0 0 0 27 216 0 2 1 0
proc4 2 2 10853
proc4ops 59 0 0 0 1098 2 0 0 0 0 8179 5896 0 0 0 0 5900 0 0 2 0 2 0 9609 0 2 150 1272 0 0 0 1236 0 0 0 \
41 0 0 0 43 44 0 0 45 46 0 0 0 0 0 0 0 0 0 47 0 0 0 0 48
"""
XFS = """\
extent_alloc 1 872 2 3
abt 4 5 6 7
blk_map 61 29 8 9 10 91 11
bmbt 12 13 14 15
dir 3 2 1 52
trans 4 40 0
ig 5 1 16 4 17 18 19
log 8 21 0 5821 4
rw 28 20
vnodes 4 21 22 23 24 25 26 0
abtb2 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0
xpc 3571712 3568056 0
debug 0
"""
IP_VS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0A80016:0CEA wlc  
  -> C0A85216:0CEA      Tunnel  100    248        2         
  -> C0A85318:0CEA      Tunnel  0      7          1         
TCP  [20010DB8000000000000000000000001]:0050 rr  
  -> [2001:0DB8:0000:0000:0000:0000:0000:0002]:0050      Route   1      3          4
FWM  10001000 wlc   
  -> C0A8321A:0CEA      Tunnel  20     64         5         
"""  # noqa: W291  # as the kernel pads them
IP_VS_STATS = """\
   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
 16AA370 E33656E5        0     51D8C8883AB3                F

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       4    1FB3C        0          1282A8F                0
"""
ARCSTATS = """\
6 1 0x01 91 4368 5266997922 97951858082072
name                            type data
hits                            4    8772612
misses                          4    604635
memory_available_bytes          3    -922337203
"""
POOL_IO = """\
12 3 0x00 1 80 79205351707403 395818011156865
nread    nwritten reads    writes   wtime    wlentime wupdate  rtime    rlentime rupdate  wcnt     rcnt    
1884160  3206144  22       132      7155162  10411226 79210489 24168078 10411226 79210489 1        2
"""  # noqa: W291  # as the kernel pads them
OBJSET = """\
23 1 0x01 7 2160 221578688875 6665999035587
name                            type data
dataset_name                    7    tank/data
writes                          4    4
nwritten                        4    12302
reads                           4    2
nread                           4    28
nunlinks                        4    3
nunlinked                       4    3
"""

IB = "sys/class/infiniband/mlx4_0"
FC = "sys/class/fc_host/host0"
UUID = "0abb23a9-579b-43e6-ad30-227ef47fcb9d"
BTRFS = f"sys/fs/btrfs/{UUID}"

#: Paths of a machine's files and what is in them.
MACHINE = {
    "proc/net/rpc/nfs": NFS,
    "proc/net/rpc/nfsd": NFSD,
    "proc/net/ip_vs": IP_VS,
    "proc/net/ip_vs_stats": IP_VS_STATS,
    "proc/spl/kstat/zfs/arcstats": ARCSTATS,
    "proc/spl/kstat/zfs/tank/io": POOL_IO,
    "proc/spl/kstat/zfs/tank/objset-36": OBJSET,
    "proc/spl/kstat/zfs/tank/state": "DEGRADED\n",
    "sys/fs/xfs/sda1/stats/stats": XFS,
    f"{BTRFS}/label": "backup\n",
    f"{BTRFS}/sectorsize": "4096\n",
    f"{BTRFS}/nodesize": "16384\n",
    f"{BTRFS}/clone_alignment": "4096\n",
    f"{BTRFS}/quota_override": "0\n",
    f"{BTRFS}/metadata_uuid": f"{UUID}\n",
    f"{BTRFS}/features/big_metadata": "1\n",
    f"{BTRFS}/allocation/global_rsv_size": "16777216\n",
    f"{BTRFS}/allocation/global_rsv_reserved": "16777216\n",
    f"{BTRFS}/devices/sda/size": "20971520\n",
    f"{BTRFS}/devices/sdb/size": "20971520\n",
    f"{BTRFS}/devices/sdc/size": "20971520\n",
    **{
        f"{BTRFS}/allocation/{group}/{file}": f"{value}\n"
        for group, mode in (("data", "raid5"), ("metadata", "raid1"), ("system", "raid1"))
        for file, value in {
            "bytes_reserved": 4096,
            "bytes_may_use": 0,
            "bytes_pinned": 0,
            "bytes_readonly": 0,
            "bytes_used": 808189952,
            "disk_total": 1,
            "disk_used": 1,
            "flags": 1,
            "total_bytes": 2147483648,
            "total_bytes_pinned": 0,
            f"{mode}/used_bytes": 808189952,
            f"{mode}/total_bytes": 2147483648,
        }.items()
    },
    f"{IB}/board_id": "SM_1141000001000\n",
    f"{IB}/fw_ver": "2.31.5050\n",
    f"{IB}/hca_type": "MT4099\n",
    f"{IB}/ports/1/state": "4: ACTIVE\n",
    f"{IB}/ports/1/phys_state": "5: LinkUp\n",
    f"{IB}/ports/1/rate": "40 Gb/sec (4X QDR)\n",
    f"{IB}/ports/1/link_layer": "InfiniBand\n",
    f"{IB}/ports/1/counters/port_rcv_data": "4631917\n",
    f"{IB}/ports/1/counters/port_xmit_data": "3733440\n",
    f"{IB}/ports/1/counters/port_rcv_packets": "6825908347\n",
    f"{IB}/ports/1/counters/link_downed": "3\n",
    f"{IB}/ports/1/counters/symbol_error": "N/A (no PMA)\n",
    f"{IB}/ports/1/counters_ext/port_rcv_data_64": "17\n",
    **{
        f"{FC}/{file}": f"{value}\n"
        for file, value in {
            "dev_loss_tmo": "30",
            "fabric_name": "0x0",
            "node_name": "0x2000e0071bce95f2",
            "port_id": "0x000002",
            "port_name": "0x1000e0071bce95f2",
            "port_state": "Online",
            "port_type": "Point-To-Point (direct nport connection)",
            "speed": "16 Gbit",
            "supported_classes": "Class 3",
            "supported_speeds": "4 Gbit, 8 Gbit, 16 Gbit",
            "symbolic_name": "Emulex SN1100E2P",
            "statistics/dumped_frames": "0xffffffffffffffff",
            "statistics/error_frames": "0x0",
            "statistics/fcp_packet_aborts": "0x13",
            "statistics/invalid_crc_count": "0x2",
            "statistics/invalid_tx_word_count": "0x8",
            "statistics/link_failure_count": "0x9",
            "statistics/loss_of_signal_count": "0x11",
            "statistics/loss_of_sync_count": "0x10",
            "statistics/nos_count": "0x12",
            "statistics/rx_frames": "0x3",
            "statistics/rx_words": "0x4",
            "statistics/seconds_since_last_reset": "0x7",
            "statistics/tx_frames": "0x5",
            "statistics/tx_words": "0x6",
        }.items()
    },
}
