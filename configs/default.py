"""Every field, its meaning and unit. The values are project 1's recipe with BatchNorm alone.

An overlay (`bn_dropout.py`, ...) starts from here and changes a few; the command line changes any
(`--config.train.epochs=1`). An empty tuple, "" or 0 means none or off unless a line says otherwise.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # initialisation, shuffling, augmentation and dropout

    config.data = data = ConfigDict()
    data.name = "cifar10"  # cifar10 | cifar100 | digits | folder
    data.data_dir = ""  # tfds directory ("": $TFDS_DATA_DIR, else ~/tensorflow_datasets), or the folder
    data.archive = ""  # a local cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, to prepare data_dir from
    data.train_size = 0  # images to train on, drawn by data.seed; 0: all
    data.validation_size = 0  # images held out of the training images, drawn by data.seed
    data.seed = 0  # of the two draws above
    data.normalization = "channel"  # channel: training mean and std | half: (x - 0.5) / 0.5
    data.image_size = 32  # pixels; must halve once a stage
    data.resize = False  # folder: scale and centre-crop pictures of another size

    config.model = model = ConfigDict()  # the fields of vgg_jax.models.VGG
    model.stages = "D"  # A | B | D | E (VGG-11, 13, 16, 19) | light | speed
    model.width = 1.0  # multiplies every convolution's channels
    model.hidden = (512,)  # sizes of the hidden dense layers
    model.batch_norm = "before"  # none | before | after the activation
    model.batch_norm_head = True  # also after each hidden dense layer
    model.batch_norm_scale = True  # False: BatchNorm has a bias but no scale
    model.batch_norm_epsilon = 1e-3  # added to the variance
    model.batch_norm_momentum = 0.9  # of the old running statistics (0.1 in PyTorch's convention)
    model.stage_dropout = ()  # none or a rate per stage, after every convolution but the stage's last
    model.head_dropout = ()  # none or a rate per dense layer, on its input
    model.whitening = 0  # side of the patches that a fixed first layer whitens, as 2
    model.pool = "last"  # last | first: after which of its convolutions a stage is pooled
    model.global_pool = False  # the maximum over all that is left of the image enters the head
    model.bias = True  # of convolutions and dense layers
    model.logits_scale = 1.0  # what the outputs are multiplied by
    model.residual = False  # every convolution becomes a residual block of two
    model.activation = "relu"  # relu | leaky_relu (slope 0.1) | gelu | silu
    model.kernel_init = "msr"  # msr | he_normal | xavier_normal | kaiming_leaky | identity
    model.dtype = "float32"  # of the computation: float32 | bfloat16; parameters stay float32

    config.augment = augment = ConfigDict()
    augment.flip = "random"  # none | random: mirror left-right with probability 1/2 | alternate: every other epoch
    augment.crop = 0  # pixels of padding, then a random crop of the original size
    augment.padding = "constant"  # what the crop pads with: constant (0 after normalisation) | reflect
    augment.cutout = 0  # side in pixels of a square set to 0 after normalisation

    config.loss = loss = ConfigDict()
    loss.name = "cross_entropy"  # cross_entropy | squared_error (against one-hot targets)
    loss.label_smoothing = 0.0  # share of the target spread evenly over all classes

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "sgd"  # sgd | adam (weight decay as an L2 gradient) | sgdw | adamw (decoupled) | muon
    optimizer.learning_rate = 0.01  # the schedule's peak
    optimizer.momentum = 0.9  # sgd, sgdw, muon's rest
    optimizer.nesterov = False  # sgd, sgdw, muon's rest
    optimizer.bias_rate = 1.0  # multiplies the learning rate of biases, BatchNorm's too
    optimizer.muon_rate = 0.24  # muon: peak learning rate of convolution kernels; the rest is trained by sgd
    optimizer.muon_momentum = 0.6  # muon
    optimizer.weight_decay = 5e-4  # 0: none; muon's kernels never decay: their norms are held
    optimizer.decay = "all"  # all | kernels: which parameters decay

    config.schedule = schedule = ConfigDict()
    schedule.name = "step"  # constant | step | milestones | cosine | one_cycle | triangular
    schedule.warmup_epochs = 0.0  # linear from 0 (not one_cycle, triangular); at most half of a run that it would fill
    schedule.decay_rate = 0.5  # step, milestones: factor at each drop
    schedule.decay_epochs = 25.0  # step: epochs between drops
    schedule.milestones = ()  # milestones: the epochs of the drops
    schedule.peak = 0.3  # one_cycle, triangular: where the peak lies, as a fraction of the run
    schedule.start = 0.2  # triangular: first learning rate, as a fraction of the peak
    schedule.end = 0.0  # triangular: last learning rate, as a fraction of the peak

    config.train = train = ConfigDict()
    train.batch_size = 128  # images a step, over all devices; the last partial batch of an epoch is dropped
    train.micro_batch = 0  # most images a device takes at once, BatchNorm's statistics are theirs; 0: the whole batch
    train.average = 0.0  # decay per step of a moving average of the weights, which is then evaluated; 0: none
    train.epochs = 300  # passes over the training images
    train.eval_epochs = 1  # epochs between evaluations, which are the log points
    train.tta = "none"  # none | flip | flip_shift: views averaged for one more test accuracy at the end
    train.devices = 0  # how many to use, each with an equal share of the batch; 0: all there are
    train.save_minutes = 5.0  # minutes between checkpoints; also saved at the end and when stopped
    return config
