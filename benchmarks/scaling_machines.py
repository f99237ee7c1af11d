"""Machines of the scaling model: published figures with sources, measured ones with their command, assumed ranges.

Units: seconds, bytes, bytes per second, FLOP per second, unless a name says otherwise. Published peaks are what the
maker states for dense 16-bit matrices; nobody reaches them, hence the ranges at the end.
"""

from __future__ import annotations

from typing import NamedTuple

GB = 1e9
US = 1e-6


class Range(NamedTuple):
    """What is not known better than between two ends."""

    low: float
    high: float


class Gpu(NamedTuple):
    """One accelerator."""

    name: str
    flops: float  # dense, 16-bit, float32 accumulation
    memory: float  # bytes/s
    source: str


class Cluster(NamedTuple):
    """Nodes of GPUs that are alike; a link's speed is its line rate in one direction."""

    name: str
    gpu: Gpu
    per_node: int
    inside: float  # bytes/s of a GPU to the others of its node
    between: float  # bytes/s of a node to the others
    hop_inside: float  # seconds a step of a collective takes beside its bytes
    hop_between: float
    source: str
    start: float = 8.4 * US  # seconds before a collective's first byte


H200 = Gpu("H200", 989.5e12, 4.8e12, "NVIDIA H200 data sheet (SXM): 1,979 TFLOP/s with sparsity, so half; 4.8 TB/s")
A100 = Gpu("A100", 312e12, 2.039e12, "NVIDIA A100 data sheet (SXM 80 GB): 312 TFLOP/s, 2,039 GB/s")
V100 = Gpu("V100", 125e12, 0.9e12, "NVIDIA V100 data sheet (SXM2): 125 TFLOP/s, 900 GB/s")
T4 = Gpu("T4", 65e12, 0.32e12, "NVIDIA T4 data sheet: 65 TFLOP/s, 320 GB/s")
P100 = Gpu("P100", 10.6e12, 0.732e12, "NVIDIA P100 data sheet (SXM2), float32: 10.6 TFLOP/s, 732 GB/s")

# Latencies, and `start` above: NCCL, src/graph/tuning.cc, ring and Simple protocol.
NVLINK_HOP, PCI_HOP, NET_HOP = 3.4 * US, 5.7 * US, 9.6 * US
NVLINK4, NVLINK3, NVLINK1, PCIE3 = 450 * GB, 300 * GB, 80 * GB, 15.75 * GB


def gbit(rate: float) -> float:
    """Gbit/s -> bytes/s."""
    return rate * 1e9 / 8


CLUSTERS = (
    Cluster(
        "H200 x8, NDR",
        H200,
        8,
        NVLINK4,
        gbit(8 * 400),
        NVLINK_HOP,
        NET_HOP,
        "NVLink 4: 900 GB/s both ways; DGX H200 user guide: eight 400 Gbit/s InfiniBand NDR ports",
    ),
    Cluster(
        "A100 x8, EFA",
        A100,
        8,
        NVLINK3,
        gbit(400),
        NVLINK_HOP,
        NET_HOP,
        "NVLink 3: 600 GB/s both ways; AWS p4d.24xlarge: 400 Gbit/s EFA",
    ),
    Cluster("A100 x8, 100 GbE", A100, 8, NVLINK3, gbit(100), NVLINK_HOP, NET_HOP, "NVLink 3; IEEE 802.3 line rate"),
    Cluster("T4 x4, 25 GbE", T4, 4, PCIE3, gbit(25), PCI_HOP, NET_HOP, "PCIe 3.0 x16; IEEE 802.3 line rate"),
    Cluster("T4 x1, 10 GbE", T4, 1, PCIE3, gbit(10), PCI_HOP, NET_HOP, "PCIe 3.0 x16; IEEE 802.3 line rate"),
)
# Goyal et al. 2017, "Accurate, Large Minibatch SGD": Big Basin, 8 P100 by NVLink, 50 Gbit/s Ethernet, ResNet-50.
BIG_BASIN = Cluster("P100 x8, 50 GbE", P100, 8, NVLINK1, gbit(50), NVLINK_HOP, NET_HOP, "Goyal et al. 2017, section 4")
GOYAL_EFFICIENCY = 0.90  # "~90%", from 8 to 256 GPUs, 32 images each

# ResNet-50 v1.5 at 224x224 in mixed precision, images/s: NVIDIA DeepLearningExamples, PyTorch, README of that model.
RESNET50_TRAINING = {"A100": 2470.0, "V100": 1200.0}  # one GPU
RESNET50_EIGHT = {"A100": 16621.0}  # eight GPUs of one node
RESNET50_INFERENCE = {"V100": 3382.0, "T4": 1198.0}  # batch 256
RESNET50_BATCH = 256
RESNET50_FLOOR = 12.8e-3  # seconds of a pass of 1 to 8 images, V100 and T4 alike: what it takes to start its kernels

# Storage and reliability.
S3_GETS = 5500.0  # requests/s a prefix: Amazon S3 user guide, "Best practices ... performance"
S3_STREAM = 87.5e6  # bytes/s a request, "85-90 MB/s": the same guide, design patterns
EFS_CLIENT, EFS_ALL = 1500 * 2**20, 60 * 2**30  # bytes/s a client and in all, largest regions: EFS user guide, quotas
NVME = 6.9 * GB  # bytes/s, sequential: data sheet of a PCIe 4.0 drive (Samsung PM9A3)
LLAMA_HOURS = 16384 * 54 * 24 / 419  # GPU-hours between interruptions: Llama 3 report (2024), 419 in 54 days
RSC_NODE_DAYS = 1000 / 6.5  # node-days (8 GPUs) between failures: Kokolis et al. 2025, cluster RSC-1
SPOT_HOURS = (
    730 / 0.20
)  # instance-hours between interruptions at 20 % a month (AWS Spot Instance Advisor's last but one class)

# Measured on this project's machine, November 2026: `python benchmarks/scaling.py --check` and benchmarks/README.md.
COPY_RATE = 290e6 / 0.032  # bytes/s for which training stands still at a save (benchmarks/checkpoint.py)
WRITE_RATE = 290e6 / 1.0  # bytes/s of the writing thread, with digests and fsync, on this disk
RESTART = 90.0  # seconds from a lost node to the next step, a machine at hand: 78 measured, rounded up
LOAD_FIXED, LOAD_PIXEL = 0.70e-3, 20e-9  # seconds of a core an image, and a pixel of it, from shards of 320x240
INDEX_BYTES, INDEX_SECONDS = 512, 12e-6  # of a process for each frame of the data set, at its start
FORWARD = 30e-3  # seconds of a core: unet-resnet34 at 160x128 in float32, batch 8
DECODE, ENCODE = 1.1e-3, 12.8e-3  # seconds of a core: a 640x480 JPEG in, its depth as 16-bit PNG out

# Assumed.
ROOF = Range(0.6, 1.45)  # speed against the roofline of counted FLOP and bytes; published ResNet-50 runs: 1.1 to 1.44
LAUNCH = Range(10 * US, 60 * US)  # seconds an eager operation takes the host; published ResNet-50 passes: 56
LINK = Range(0.6, 0.9)  # share of the line rate that a collective reaches
JITTER = Range(0.01, 0.05)  # sigma of ln(step time) among GPUs that do the same
