# Sourced by `cluster`: what Slurm and the nodes read, written into the cluster's folder.
# shellcheck shell=bash disable=SC2154 # folder, network, proctrack and nodes are the cluster's

# KEY=VALUE…: settings of slurm.conf that differ from these
configure() {
  local login key node
  login=$(hostname -s)
  local -A set=(
    # Slurm's own is 30: too long to wait for in a test
    [KillWait]=5
    [MinJobAge]=300
    [MessageTimeout]=10
    [SlurmctldTimeout]=30
    [SlurmdTimeout]=30
    [OverTimeLimit]=0
    [JobRequeue]=1
    [ReturnToService]=2
    # without a delay, which is 3 s for a batch job even where all is idle
    [SchedulerParameters]=batch_sched_delay=0
  )
  for key in "$@"; do set[${key%%=*}]=${key#*=}; done

  cat >"$folder/etc/slurm.conf" <<CONF
ClusterName=shlogin
SlurmctldHost=$login($network.1)
SlurmUser=slurm
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/run/munge/socket
# the controller listens on the bridge, and not on what this machine is known by outside
CommunicationParameters=NoCtldInAddrAny

StateSaveLocation=$folder/state/slurmctld
SlurmctldPidFile=$folder/state/slurmctld/pid
SlurmctldLogFile=$folder/state/slurmctld/log
SlurmdSpoolDir=$folder/nodes/%n/spool
SlurmdPidFile=$folder/nodes/%n/pid
SlurmdLogFile=$folder/nodes/%n/log
SlurmctldDebug=info
SlurmdDebug=verbose

ProctrackType=proctrack/$proctrack
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
# in a container, root may not raise the limits that a user's shell had lowered
PropagateResourceLimits=NONE
# nodes may have more than this machine has
SlurmdParameters=config_overrides
$(for key in "${!set[@]}"; do echo "$key=${set[$key]}"; done | sort)

GresTypes=gpu
$(for node in "${nodes[@]}"; do echo "NodeName=$node NodeAddr=$network.1${node#c} CPUs=16 RealMemory=16000 Gres=gpu:2 State=UNKNOWN"; done)
PartitionName=debug Nodes=c1,c2 Default=YES MaxTime=UNLIMITED DefaultTime=60 DefMemPerCPU=500 State=UP
PartitionName=short Nodes=c1,c2 MaxTime=2 DefaultTime=1 DefMemPerCPU=500 State=UP
CONF

  # Slurm asks no more of a device than to be there, and gives the numbers of those with a file to the job.
  local gpu
  for gpu in 0 1; do mknod -m 666 "$folder/gpu/gpu$gpu" c 1 3; done
  printf '%s\n' AutoDetect=off "Name=gpu File=$folder/gpu/gpu[0-1]" >"$folder/etc/gres.conf"

  printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup ConstrainCores=no ConstrainRAMSpace=no \
    ConstrainDevices=no >"$folder/etc/cgroup.conf"

  {
    printf '%s\n' '127.0.0.1 localhost' '::1 localhost' "$network.1 $login"
    for node in "${nodes[@]}"; do echo "$network.1${node#c} $node"; done
  } >"$folder/etc/hosts"
  # Nobody answers there unless a test makes somebody, and the kernel says so at once.
  printf '%s\n' "nameserver $network.1" 'options timeout:1 attempts:1' >"$folder/etc/resolv.conf"
}
