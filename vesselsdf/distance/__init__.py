from vesselsdf.distance.labels import partial_volume_distance, signed_distance
from vesselsdf.distance.redistancing import redistance
from vesselsdf.distance.tubes import tube_distance

__all__ = ["partial_volume_distance", "redistance", "signed_distance", "tube_distance"]
